"""What a task trains: a backbone, a neck and a head in one plain module.

A network called as `network(images)` gives predictions, as `network(images, targets)` a dict of
losses; `network.outputs(images)` is the dense part alone, which is what costs are counted on.
"""
