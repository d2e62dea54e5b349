"""One model on several devices: tensor parallelism.

Every device has a process of its own with a shard of each weight (transformers' own plan for the
model) and of the KV cache. The leader is the worker: it schedules, samples and answers as with one
device. Before each forward pass it tells its followers what goes in; all ranks then run the pass
together and meet in its collectives. Nobody waits in a collective between two passes: a follower
waits for its leader's word on a pipe, however long that stands idle.

    plan       what a model is cut into, and which models can't be
    messages   what goes over the pipe
    group      the ranks' process group
    team       the leader's side
    follower   the other side, a process
    start      bringing both up
"""
