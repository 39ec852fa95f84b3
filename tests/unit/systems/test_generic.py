"""The generic system: what the configuration says becomes looks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from exporter.config import ConfigError, load_text
from exporter.model import Children, Heartbeats, MainProcess, Probe
from exporter.systems import generic, registry
from tests.trees import Supervisor, surroundings


def options(text: str) -> generic.Options:
    """The options of one entry, through the real configuration stage."""
    config = load_text(f"supervisors:\n  - {text}\n", {"generic": generic.Options})
    (one,) = config.supervisors
    assert isinstance(one, generic.Options)
    return one


def test_it_is_found_by_its_file_name() -> None:
    """The registry is the folder."""
    assert registry()["generic"].Options is generic.Options


def test_process_children_and_heartbeats_are_looked_at(tmp_path: Path) -> None:
    """Two looks: the process tree, and the heartbeat files."""
    beat = tmp_path / "beat"
    beat.touch()
    with Supervisor() as supervisor:
        pidfile = supervisor.write_pidfile(tmp_path / "a.pid")
        supervisor.fork()
        mine = options(
            f"{{name: a, system: generic, interval: 10s, probes: {{heartbeat: {{interval: 3s}}}},"
            f" process: {{pidfile: {pidfile}}},"
            f" children: [{{role: worker, match: {{cmdline: 'importer: worker'}}, expected: 4, exits: normal}}],"
            f" heartbeats: [{{name: loop, file: {beat}, max_age: 60s}}]}}"
        )
        tree, beats = generic.looks(mine, surroundings())
        assert (tree.probes, tree.interval) == ((Probe.PROCESS, Probe.CHILDREN), 10.0)
        assert (beats.probes, beats.interval) == ((Probe.HEARTBEAT,), 3.0)
        found = tree.run()
        process, children = found.values[Probe.PROCESS], found.values[Probe.CHILDREN]
        assert isinstance(process, MainProcess)
        assert process.up is True
        assert isinstance(children, Children)
        worker = children.groups[0]
        assert (worker.role, worker.live, worker.expected, worker.exits_unexpected) == ("worker", 1, 4, False)
        heartbeats = beats.run().values[Probe.HEARTBEAT]
        assert isinstance(heartbeats, Heartbeats)
        assert heartbeats.beats[0].trouble is None
        for look in (tree, beats):
            look.close()


def test_a_process_may_be_left_out(tmp_path: Path) -> None:
    """A watcher of heartbeat files only."""
    mine = options(f"{{name: a, system: generic, heartbeats: [{{name: loop, file: {tmp_path}/beat, max_age: 60s}}]}}")
    (only,) = generic.looks(mine, surroundings())
    assert only.probes == (Probe.HEARTBEAT,)


@pytest.mark.parametrize("owner", ["root", "0"])
def test_the_declared_owner_may_be_a_name_or_a_number(owner: str, tmp_path: Path) -> None:
    """Both lead to the same uid."""
    mine = options(f"{{name: a, system: generic, process: {{pidfile: {tmp_path}/a.pid, owner: {owner}}}}}")
    (look,) = generic.looks(mine, surroundings())
    look.close()


def test_an_owner_that_is_no_user_here_is_refused_with_a_remedy(tmp_path: Path) -> None:
    """Not ignored: it is a safety setting."""
    with pytest.raises(ConfigError, match="not a user of this machine; write the user's number"):
        options(f"{{name: a, system: generic, process: {{pidfile: {tmp_path}/a.pid, owner: nobody-of-that-name}}}}")


def test_a_configuration_imports_the_systems_that_it_names_and_no_database() -> None:
    """Fifty supervisors without a database must fit into 64 MiB."""
    program = (
        "import sys; from exporter.app import load_config; from pathlib import Path; load_config(Path(sys.argv[1]));"
        "print(sorted({'exporter.systems.solid_queue', 'cronsim', 'sqlalchemy'} & sys.modules.keys()))"
    )
    example = Path(__file__).parents[2] / "config" / "good_smallest.yml"
    done = subprocess.run([sys.executable, "-c", program, example], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
