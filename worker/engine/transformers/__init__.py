"""The default engine: any Hugging Face causal or encoder-decoder model, in PyTorch.

engine        takes requests, answers them; knows no thread and no batch
loading       checkpoint -> model, tokenizer, revision; ModelLoadError in plain words
prompt        request -> token ids
continuation  one sample in the making
sampler       logits -> next tokens, pure
stopping      stop strings, pure
memory        how much fits, pure
backend       what the two back-ends promise, and which one a model gets
continuous    back-end: continuous batching over a paged KV cache
paged         the one file that knows the inside of transformers' continuous batching
static        back-end: length-bucketed `generate`, for the models that `paged` can't hold
"""
