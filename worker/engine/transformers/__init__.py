"""The default engine: any Hugging Face causal or encoder-decoder model, in PyTorch.

What becomes of a request, before and behind the model, is in `worker/engine/shared/`.

engine        which back-end a model gets
loading       checkpoint -> model, tokenizer, revision; ModelLoadError in plain words
gguf/         the same of GGUF files
quantization  weights of fewer bits
adapters/     LoRA adapters beside the model
parallel/     a model shared by several devices
sampler       logits -> next tokens, pure
logprobs      log-probabilities of those tokens
memory        how much fits, pure
continuous    back-end: continuous batching over a paged KV cache
paged         the one file that knows the inside of transformers' continuous batching
attention     what a packed batch computes on a CPU
packing       which sequences of a step it takes together, pure
projections   products with weights on a CPU, for few rows
steps         what a step holds and how large its CUDA graph is, pure
runner        a step: the forward pass (on a GPU a CUDA graph), then the choice of tokens
paged_attention  what a batch computes on a GPU, over a table of pages
decode_kernel    its one Triton kernel: a new token of each sequence against its pages
probe         a model tried on a few tokens before its cache is paged
static        back-end: length-bucketed `generate`, for models whose cache can't be paged
assisted/     back-end: several tokens a step, proposed by somebody cheaper
measuring/    back-end: texts scored and embedded, beside one that generates
turns         who may compute with the model now: generating or measuring
"""
