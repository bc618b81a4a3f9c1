"""What the flows share, and how they are registered with a Prefect server.

Besides the flows themselves (`..._flow.py`) only this folder imports Prefect.
"""
