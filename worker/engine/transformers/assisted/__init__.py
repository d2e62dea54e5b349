"""Assisted ("speculative") decoding: the text without assistance, several tokens a step.

backend    one text after the other: a draft is read at once and checked by the sampler
options    what the engine options ask for, and the draft model that they name
drafting   who proposes tokens: a smaller model, or what was said before
lookup     what was said before and may come again, pure
cached     a model and the cache of one text, from which tokens can be taken back
"""
