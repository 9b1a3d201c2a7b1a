"""The program of the helpers: it resolves, builds and clones repositories, in a container on the visitor's endpoint.

No part of the hub, which only reads this file and puts it into containers of the builder image (docs/adr/0020). It has
Python's library and repo2docker there, and nothing else.
"""
