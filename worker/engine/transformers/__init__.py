"""The default engine: any Hugging Face causal or encoder-decoder model, in PyTorch.

Without torch, so that the engine `keras` has them too:

answering     takes requests, answers them; knows no thread and no batch
metadata      what a checkpoint says beside its weights: tokenizer, limits, end tokens, revision
prompt        request -> token ids
admission     token ids -> continuations, or why the model can't take them
continuation  one sample in the making
rows          what one row of logits is sampled with
backend       what the back-ends promise, and which one a model gets
padded        requests of like length, run together to the end of the longest
apart         computing in a thread that ends

With torch:

engine        which back-end a model gets
loading       checkpoint -> model, tokenizer, revision; ModelLoadError in plain words
sampler       logits -> next tokens, pure
logprobs      log-probabilities of those tokens
memory        how much fits, pure
continuous    back-end: continuous batching over a paged KV cache
paged         the one file that knows the inside of transformers' continuous batching
attention     what a packed batch computes on a CPU
steps         what a step holds and how large its CUDA graph is, pure
runner        a step: the forward pass (on a GPU a CUDA graph), then the choice of tokens
paged_attention  what a batch computes on a GPU, over a table of pages
decode_kernel    its one Triton kernel: a new token of each sequence against its pages
probe         a model tried on a few tokens before its cache is paged
static        back-end: length-bucketed `generate`, for models whose cache can't be paged
"""
