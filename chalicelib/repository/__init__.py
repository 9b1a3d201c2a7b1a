"""Repositories: whose code is to be launched, as people write it down and link to it. Pure; nothing here fetches.

source.py      a repository, a version of it and a folder in it: what a launch names and what a builder is given
address.py     what a visitor pastes, any web address of a repository, into a source and what to open of it
links.py       Binder's links, and ours, into what is asked for, and back
badge.py       the badge for a README, and what its author pastes there
allowed.py     which repositories the hub's operator allows
tag.py         the name of the image that is built of a version
answers.py     what a helper on the endpoint says in its log
"""
