"""Models: one module per family, with its graphs and host-side driver; tasks and parts are shared.
"""
