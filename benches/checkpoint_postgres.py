"""Checkpoint and restore of a PostgreSQL workspace of 1 GB (or SCALE pgbench units of 15 MB, as the first
argument) under write load; then what pgbench keeps equal is compared, and pg_amcheck looks at every page.

Needs PostgreSQL. Run as root the server runs as `nobody`, because it refuses to run as root.
"""

import glob
import os
import pathlib
import pwd
import re
import subprocess
import sys
import time

from common import GABION, Project, claim, free_ports

SCALE = int(sys.argv[1]) if len(sys.argv) > 1 else 68
[PORT] = free_ports(1)
BIN = sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1]
USER = "user: nobody, " if os.geteuid() == 0 else ""

MANIFEST = f"""version: 1
stack: bench
sandboxes:
  box:
    workspace: data
    env: {{ PATH: "{BIN}:/usr/bin:/bin", PGHOST: 127.0.0.1, PGPORT: "{PORT}", PGUSER: bench, PGDATABASE: postgres }}
    services:
      init: {{ {USER}kind: task, command: "test -e db || initdb -D db -U bench -A trust" }}
      postgres:
        {{ {USER}cmd: postgres, args: [-D, db, -p, "{PORT}", -k, "", -c, max_wal_size=1GB],
          health: {{ exec: [pg_isready, -q], timeout: 120s }}, needs: [init], stop: {{ signal: INT, grace: 60s }} }}
"""

SUMS = """select (select sum(abalance) from pgbench_accounts) = (select sum(bbalance) from pgbench_branches)
and (select sum(bbalance) from pgbench_branches) = (select sum(tbalance) from pgbench_tellers)
and (select sum(tbalance) from pgbench_tellers) = (select coalesce(sum(delta), 0) from pgbench_history)"""


def within(project, *command):
    done = subprocess.run([GABION, "exec", "box", "--", *command], cwd=project.dir, env=project.env,
                          capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


def size(project):
    listed = subprocess.run([GABION, "checkpoint", "list", "box"], cwd=project.dir, env=project.env,
                            capture_output=True, text=True, check=True)
    return re.search(r"\d[\d.]* [KMG]iB", listed.stdout).group()


def main():
    with Project(MANIFEST) as project:
        data = pathlib.Path(project.dir, "data")
        data.mkdir()
        if USER:
            os.chmod(project.dir, 0o755)
            os.chown(data, pwd.getpwnam("nobody").pw_uid, pwd.getpwnam("nobody").pw_gid)
        project.run("apply", "--yes")
        within(project, "pgbench", "-i", "-q", "-s", str(SCALE))
        load = subprocess.Popen([GABION, "exec", "box", "--", "pgbench", "-c", "4", "-T", "3600"],
                                cwd=project.dir, env=project.env, stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL)
        count = lambda: int(within(project, "psql", "-Atc", "select count(*) from pgbench_history"))
        while count() < 500:
            time.sleep(0.1)
        took = project.run("checkpoint", "create", "box", "loaded")
        print(f"checkpoint of {size(project)}: {took:.1f} s")
        after = count()
        while count() <= after:
            time.sleep(0.1)
        took = project.run("checkpoint", "restore", "box", "loaded", "--yes")
        load.wait()
        print(f"restore, with the recovery of the database: {took:.1f} s")
        equal = within(project, "psql", "-Atc", SUMS) == "t"
        restored = count()
        within(project, "pg_amcheck", "--install-missing", "--heapallindexed")
        return claim(f"the sums are equal, pg_amcheck finds nothing, {restored} transactions are there",
                     equal and 500 <= restored <= after)


sys.exit(0 if main() else 1)
