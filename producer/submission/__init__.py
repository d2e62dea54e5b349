"""Submit: read, store, then send.

    read      lines come as a stream; every bad one is noted
    store     jobs in slices, under a batch that no worker sees yet (`validating`)
    activate  one transaction opens the batch and cuts it into chunks
    send      one message a chunk; should Redis be away, workers find the chunks by themselves

Killed at any line of this, a producer leaves either a whole batch or one that nobody runs and
that recovery sweeps away.
"""

from producer.submission.order import InvalidInput, Order, Submission, check_terms
from producer.submission.submit import send_messages, submit

__all__ = ["InvalidInput", "Order", "Submission", "check_terms", "send_messages", "submit"]
