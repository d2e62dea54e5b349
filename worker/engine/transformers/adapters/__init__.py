"""LoRA adapters beside a model, another one for every row of a batch.

loading    folders -> additions to the model's layers, tried before the first request
lora       the additions, and the masks that say whose they are
sharing    which sequences may share pages of the KV cache
"""
