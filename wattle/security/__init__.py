"""What closes a network: who is a member, what each may say, who may do what, and how it is told.

docs/security.md is the account for readers.

Nothing here costs anything where it is not used: ``jwt`` and ``cryptography`` are imported when there is a key to work with. What is made
here are values for a configuration: zenoh is not imported.
"""
