"""What runs: the supervisor, one actor per VM, and the producers that make VMs.

Actors talk to the layer above with the facts in `messages`, through a function they are given; they know neither
the pool that decides about them nor the wire it is reached by.
"""
