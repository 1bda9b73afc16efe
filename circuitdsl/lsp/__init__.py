"""The language server: what an editor asks of a spec while it is being written.

A module answers one question about a `Document`, and knows neither the protocol nor its library. `server.py` alone
imports pygls, and passes questions and answers on.
"""
