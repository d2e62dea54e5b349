"""What `generation.py` compares, one module a side.

    python -m benchmarks.generation_sides.SIDE MODEL DTYPE COUNT SEED

Each loads the model, warms up, generates the workload once, and prints one line of JSON: `tokens`
and `seconds`, without the loading. Each runs in a process of its own, and a peer in an environment
of its own.
"""
