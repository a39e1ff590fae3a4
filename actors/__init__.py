"""The actors: the supervisor, one actor per VM, and the producers that make VMs.

Actors report the facts of `vmm.words.facts` to the layer above through a function that they are given; they know
neither the pool, which decides about them, nor its protocols.
"""
