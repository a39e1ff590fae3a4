"""The kinds of producers, one a module: what each costs the host, its settings, and how it is made."""
