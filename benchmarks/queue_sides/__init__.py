"""What `queues.py` compares, one module a side: take a prompt, echo it, store the result.

    python -m benchmarks.queue_sides.SIDE DATABASE_URL REDIS_URL JOBS

Each starts its library's own worker, queues the prompts, waits until every result is in the
database, and prints one line of JSON: `jobs` and `seconds`, from the first prompt queued to the
last result stored. Each peer runs in an environment of its own (`benchmarks/peers.py`).
"""
