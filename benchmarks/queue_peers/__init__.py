"""Other job queues at the work that promptmill does: take a prompt, echo it, store the result.

    python -m benchmarks.queue_peers.PEER DATABASE_URL REDIS_URL JOBS

Each module starts its library's own worker, queues the prompts, waits until every result is in the
database, and prints one line of JSON: `jobs` and `seconds`, from the first prompt queued to the
last result stored. Each runs in an
environment of its own (`benchmarks/peers.py`).
"""
