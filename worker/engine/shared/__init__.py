"""What engines that run a model themselves have in common. It needs no PyTorch.

answering     takes requests, answers them; knows no thread and no batch
metadata      what a checkpoint says beside its weights: tokenizer, limits, end tokens, revision
weight_files  whether a folder's weights are there and safe to load
prompt        request -> token ids
admission     token ids -> continuations, or why the model can't take them
continuation  one sample in the making
guide         structured output: which tokens may come next
rows          what one row of logits is sampled with
backend       what the back-ends promise, and which one a model gets
padded        requests of like length, run together to the end of the longest
apart         computing in a thread that ends
"""
