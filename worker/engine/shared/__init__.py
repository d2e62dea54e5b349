"""What engines that run a model themselves have in common. It needs no PyTorch.

answering     takes requests, answers them; knows no thread and no batch
metadata      what a checkpoint says beside its weights: tokenizer, limits, end tokens, revision
weight_files  whether a folder's weights are there and safe to load
adapter_files a LoRA adapter's folder, found and judged
prompt        request -> token ids
rendering     chats as text, and where in it the answer begins
chat_template a tokenizer's chat template, under a clock that stands still
skeleton      a chat with a sentinel for each text, by which is found what a template leaves out
forms         in which form a template takes messages
omissions     what to say where a template leaves something out
written_numbers  numbers keep their digits in a rendered chat
sentinels     texts that stand nowhere else
turn_ends     which tokens end an assistant's turn
admission     token ids -> continuations, or why the model can't take them
continuation  one sample in the making
guide         structured output: which tokens may come next
message       a chat's answer: its thinking apart, its calls taken out
thinking      which part of an answer is thinking, pure
tool_calls    calls of functions in a text, and grammars that make a model write one, pure
rows          what one row of logits is sampled with
backend       what the back-ends promise, and which one a model gets
padded        requests of like length, run together to the end of the longest
apart         computing in a thread that ends
guard         no process of an engine's outlives the worker
"""
