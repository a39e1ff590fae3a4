"""Completion of command lines in bash, zsh and fish: click finds what fits, from our types and our lazy group."""
