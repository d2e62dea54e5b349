"""The engine `keras`: KerasHub's causal models on TensorFlow or JAX, from the same checkpoints.

engine     which option means what, and what `start` loads
framework  which of TensorFlow and JAX, and on which device; keras is imported here first
loading    checkpoint -> Keras model, tokenizer, revision; ModelLoadError in plain words
fidelity   what KerasHub would silently get wrong about a checkpoint, pure
compiled   the forward passes, compiled once a shape
buckets    which shapes there are, pure
backend    padded batches, step by step
sampler    logits -> next tokens and log-probabilities, on the host, pure

What becomes of a request it shares with the default engine: `worker/engine/shared/`.
"""
