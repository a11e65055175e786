"""Servers that speak a cloud's protocol from this process, and can misbehave on purpose."""
