"""QEMU's guest agent, qemu-ga, as distributions package it: the protocol (`protocol`), the channel, the client."""
