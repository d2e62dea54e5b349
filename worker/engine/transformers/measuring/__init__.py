"""Scores and embeddings, beside the back-end that generates and with the same model.

measurer      texts of like length, padded and read in one pass
measurement   one text that is to be measured
body          the model without its head
scoring       hidden states -> log-probabilities, in pieces
"""
