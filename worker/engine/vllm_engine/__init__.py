"""vLLM's asynchronous engine, for whoever has vLLM: it generates in processes of its own.

engine      takes requests, answers them; knows jobs and no library
settings    options and EngineConfig -> vLLM's arguments, pure
loading     checkpoint -> a running vLLM, what was loaded; ModelLoadError in plain words
runner      the one thread that talks to vLLM: an asyncio loop, and a new vLLM for one that died
guard       a process of ours that ends vLLM's, however the worker dies
sampling    parameters -> vLLM's, and its output -> our samples, pure

vLLM is imported in `loading` alone, once its environment variables are set.
"""
