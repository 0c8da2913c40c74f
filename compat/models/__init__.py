"""Models: one module per family, with its graphs and host-side driver.

Families share their tasks (:mod:`compat.models.tasks`) and parts (:mod:`compat.models.parts`).
"""
