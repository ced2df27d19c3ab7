"""How test/launch.sh starts a run, from the environment: `python -m train.launch PROCESSES` prints bash variables.

nodes, nproc; launcher: the words before train_model.py, none where one plain process does; and what is exported.
"""
import fcntl
import importlib.util
import os
import re
import shlex
import socket
import struct
import sys
from pathlib import Path
from typing import Dict, List, Mapping, NamedTuple, Optional

DEFAULT_PORT = 29500  # of several machines, which have to agree
JOIN_TIMEOUT = 600  # seconds that a machine waits for the others
WATCHED = ["-m", "train.agent"]
SIOCGIFADDR = 0x8915  # Linux's request for an interface's address


class LaunchError(ValueError):
    """Variables that do not go together; the message names one, and what to write."""


class Plan(NamedTuple):
    """What is started on this machine."""

    nodes: int
    nproc: int
    launcher: List[str]
    exports: Dict[str, str]


def plan(environment: Mapping[str, str], default: int, has_torchrun: bool) -> Plan:
    """The plan for `default` processes, or as the variables say. LaunchError where they contradict one another."""
    env = {name: value for name, value in environment.items() if value != ""}
    env = dict(slurm_variables(env), **env)
    nproc, nodes = _number(env, "NPROC", default, 1), _number(env, "NNODES", 1, 1)
    rendezvous, restarts = env.get("RDZV_ENDPOINT"), _number(env, "MAX_RESTARTS", 0, 0)
    if rendezvous and not has_torchrun:
        raise LaunchError("RDZV_ENDPOINT: this PyTorch has no torchrun; write MASTER_ADDR, MASTER_PORT and NODE_RANK")
    if restarts and not has_torchrun:
        raise LaunchError("MAX_RESTARTS: this PyTorch has no torchrun and restarts nothing; leave it out")
    if rendezvous:
        return _by_rendezvous(env, nodes, nproc, restarts)
    if nodes > 1:
        return _by_master(env, nodes, nproc, restarts, has_torchrun)
    return _alone(env, nproc, restarts, has_torchrun)


def _alone(env: Mapping[str, str], nproc: int, restarts: int, has_torchrun: bool) -> Plan:
    """One machine. torchrun takes a free port itself, and keeps it; the older launcher is told one."""
    if env.get("NODE_RANK", "0") != "0" or not is_own_address(env.get("MASTER_ADDR", "127.0.0.1")):
        name = "MASTER_ADDR" if env.get("NODE_RANK", "0") == "0" else "NODE_RANK"
        raise LaunchError("%s=%s: means several machines; write NNODES with it" % (name, env[name]))
    if nproc == 1 and not restarts:
        return Plan(1, 1, [], {})
    port = _number(env, "MASTER_PORT", 0, 1)
    if not has_torchrun:
        return Plan(1, nproc, _older(1, 0, nproc, "127.0.0.1", port or free_port()), {})
    meet = (["--master_addr", "127.0.0.1", "--master_port", str(port)] if port
            else ["--standalone", "--local_addr", "127.0.0.1"])
    return Plan(1, nproc, _torchrun(1, nproc, restarts) + meet, {})


def _by_master(env: Mapping[str, str], nodes: int, nproc: int, restarts: int, has_torchrun: bool) -> Plan:
    """Several machines that know the first one's address."""
    for name, example in (("MASTER_ADDR", "10.0.0.1, an address of the machine with NODE_RANK=0"), ("NODE_RANK", "0")):
        if name not in env:
            raise LaunchError("NNODES=%d: %s is missing; write, for example, %s=%s" % (nodes, name, name, example))
    if restarts:
        raise LaunchError("MAX_RESTARTS=%d: machines that meet by MASTER_ADDR cannot meet again; write RDZV_ENDPOINT "
                          "instead" % restarts)
    rank, master = _number(env, "NODE_RANK", 0, 0), env["MASTER_ADDR"]
    port = _number(env, "MASTER_PORT", DEFAULT_PORT, 1)
    if rank >= nodes:
        raise LaunchError("NODE_RANK=%d: %d machines (NNODES) have the numbers 0 to %d" % (rank, nodes, nodes - 1))
    if not has_torchrun:
        return Plan(nodes, nproc, _older(nodes, rank, nproc, master, port), _addresses(env, master))
    return Plan(nodes, nproc, _torchrun(nodes, nproc, 0) + [
        "--node_rank", str(rank), "--master_addr", master, "--master_port", str(port)], _addresses(env, master))


def _by_rendezvous(env: Mapping[str, str], nodes: int, nproc: int, restarts: int) -> Plan:
    """Machines that meet at an endpoint, and meet there again after a failure."""
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if name in env:
            raise LaunchError("%s=%s: contradicts RDZV_ENDPOINT=%s; keep one of them"
                              % (name, env[name], env["RDZV_ENDPOINT"]))
    host, colon, port = env["RDZV_ENDPOINT"].rpartition(":")
    if not (host and colon and port.isdigit()):
        raise LaunchError("RDZV_ENDPOINT=%s: takes HOST:PORT, such as 10.0.0.1:29500" % env["RDZV_ENDPOINT"])
    address = own_address(host)
    is_host = _number(env, "NODE_RANK", 0, 0) == 0 if "NODE_RANK" in env else is_own_address(host)
    return Plan(nodes, nproc, _torchrun(nodes, nproc, restarts) + [
        "--rdzv_backend", "c10d", "--rdzv_endpoint", env["RDZV_ENDPOINT"], "--rdzv_id", env.get("RDZV_ID", "glore"),
        "--rdzv_conf", "is_host=%d,join_timeout=%d" % (is_host, JOIN_TIMEOUT)] + (
            ["--local_addr", address] if address else []), _addresses(env, host))


def _torchrun(nodes: int, nproc: int, restarts: int) -> List[str]:
    return WATCHED + ["torch.distributed.run", "--nnodes", str(nodes), "--nproc_per_node", str(nproc),
                      "--max_restarts", str(restarts)]


def _older(nodes: int, rank: int, nproc: int, master: str, port: int) -> List[str]:
    return WATCHED + ["torch.distributed.launch", "--use_env", "--nnodes", str(nodes), "--node_rank", str(rank),
                      "--nproc_per_node", str(nproc), "--master_addr", master, "--master_port", str(port)]


def slurm_variables(env: Mapping[str, str]) -> Dict[str, str]:
    """What a SLURM step of several machines says, in our words; else nothing."""
    nodes = env.get("SLURM_STEP_NUM_NODES", env.get("SLURM_NNODES", "1"))
    if nodes == "1" or "NNODES" in env:
        return {}
    for name in ("SLURM_NODEID", "SLURM_JOB_NODELIST"):
        if name not in env:
            raise LaunchError("%s is missing beside SLURM_NNODES=%s: start this script by srun" % (name, nodes))
    tasks = env.get("SLURM_STEP_TASKS_PER_NODE", "1")
    if not re.match(r"^1(\(x\d+\))?$", tasks):
        raise LaunchError("SLURM_STEP_TASKS_PER_NODE=%s: start one task a machine (srun --ntasks-per-node=1); each "
                          "starts NPROC processes" % tasks)
    found = {"NNODES": nodes, "NODE_RANK": env["SLURM_NODEID"]}
    if "RDZV_ENDPOINT" not in env:
        hosts = env.get("SLURM_STEP_NODELIST", env["SLURM_JOB_NODELIST"])
        job = int(re.sub(r"\D", "", env.get("SLURM_JOB_ID", "")) or 0)
        found.update(MASTER_ADDR=first_host(hosts), MASTER_PORT=str(20000 + job % 10000))  # jobs do not meet
    return found


def first_host(nodelist: str) -> str:
    """The first of SLURM's compressed list of hosts: 'gpu[03-05,9],cpu1' -> 'gpu03'."""
    match = re.match(r"^((?:[^,\[\]]|\[[^\]]*\])+)", nodelist)
    if match is None:
        raise LaunchError("SLURM_JOB_NODELIST=%s: no host in it; write MASTER_ADDR" % nodelist)
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", match.group(1))


def own_address(towards: str) -> Optional[str]:
    """The address of this machine on the way to a host, None where no way is known. Nothing is sent."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(towards, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(place)
            return str(probe.getsockname()[0])
    except OSError:
        return None


def is_own_address(host: str) -> bool:
    """Whether the host is this machine: only then can a socket have its address."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(place)
    except OSError:
        return False
    return True


def _addresses(env: Mapping[str, str], towards: str) -> Dict[str, str]:
    """gloo and hccl look up the machine's own name, which often leads to the loopback: they are told instead,
    unless you have told them.
    """
    address = own_address(towards)
    told = {"HCCL_IF_IP": address, "GLOO_SOCKET_IFNAME": interface_of(address) if address else None}
    return {name: value for name, value in told.items() if value and name not in env}


def interface_of(address: str) -> Optional[str]:
    """The name of the network interface that has the address (IPv4)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(probe.fileno(), SIOCGIFADDR, struct.pack("256s", name.encode()))
            except OSError:  # an interface without an address
                continue
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    return None


def free_port() -> int:
    """A port of this machine that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _number(env: Mapping[str, str], name: str, default: int, least: int) -> int:
    if name not in env:
        return default
    if not env[name].isdigit() or int(env[name]) < least:
        raise LaunchError("%s=%s: must be a whole number, %d or more" % (name, env[name], least))
    return int(env[name])


def has_torchrun() -> bool:
    """Whether this PyTorch has torch.distributed.run; torch itself is not loaded."""
    spec = importlib.util.find_spec("torch")
    return spec is not None and spec.origin is not None and Path(spec.origin).parent.joinpath(
        "distributed", "run.py").exists()


def as_bash(found: Plan) -> str:
    """Assignments for bash's eval."""
    lines = ["nodes=%d nproc=%d" % (found.nodes, found.nproc),
             "launcher=(%s)" % " ".join(shlex.quote(word) for word in found.launcher)]
    return "\n".join(lines + ["export %s=%s" % (name, shlex.quote(value)) for name, value in found.exports.items()])


def main(argv: List[str]) -> int:
    """argv: the recipe's number of processes, options of train_model.py."""
    try:
        resumes = any(word.startswith("--resume") for word in argv[1:])
        if os.environ.get("MAX_RESTARTS", "") not in ("", "0") and not resumes:
            raise LaunchError("MAX_RESTARTS=%s: processes that are started again have to go on from a checkpoint; add "
                              "--resume auto" % os.environ["MAX_RESTARTS"])
        print(as_bash(plan(os.environ, int(argv[0]), has_torchrun())))
    except LaunchError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
