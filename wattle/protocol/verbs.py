"""The verbs of ``cmd/<peer>/<verb>`` by who may say them to whom: what peers serve and what access rules allow is made of these."""

from __future__ import annotations

READS = ("run", "runs", "workers", "worker", "workflow", "workflows", "nodes")
"""Gateways ask coordinators, which answer at once or when what is asked for has come true."""

CHANGES = ("cancel_run", "retry_run", "submit", "put_workflow", "start", "delete_workflow", "prune")
"""Gateways have coordinators change something."""

COPIES = ("copies", "copy", "forget")
"""Coordinators ask whoever keeps copies (wattle/peer/copies.py): runtimes and other coordinators."""

KEEP = "keep"
"""Coordinators give copies to be kept to runtimes and other coordinators."""

ORDERS = ("assign", "cancel", "held", "facts", "discard")
"""Coordinators command runtimes."""

NODE_CARE = ("drain", "resume")
"""Gateways tell runtimes to take no work, or to take it again."""

PRUNED = "pruned"
"""Runtimes ask coordinators which runs are gone."""

PROBE = "probe"
"""Gateways ask everybody what they see of each other (wattle/peer/probing.py), and who misses another asks whether others see it."""

OF_RUNTIMES = (*ORDERS, KEEP, *COPIES, *NODE_CARE)
"""What a runtime serves."""
