"""Serves a finished run over HTTP: `pip install 'recall-towers[serve]'`, then `recall serve --run DIR`.

Imports the other packages of `recall.serving`; the only home of FastAPI. Start at `app.py`, whose routes call
`service.py`; `server.py` runs them.
"""
