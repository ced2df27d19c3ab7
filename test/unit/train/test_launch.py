"""What test/launch.sh starts, for every way of saying it; nothing is started here."""
import pytest

from train import launch
from train.launch import LaunchError, first_host, is_own_address, own_address, plan

TORCHRUN = ["-m", "train.agent", "torch.distributed.run", "--nnodes"]
OLDER = ["-m", "train.agent", "torch.distributed.launch", "--use_env", "--nnodes"]
SLURM = {"SLURM_JOB_ID": "123456", "SLURM_NNODES": "2", "SLURM_NODEID": "1", "SLURM_JOB_NODELIST": "gpu[03-05,9],cpu1"}


def words(environment, default=8, has_torchrun=True):
    return " ".join(plan(environment, default, has_torchrun).launcher)


def test_one_process_is_plain_python():
    for environment in ({}, {"NPROC": ""}, {"NPROC": "1"}, {"MASTER_ADDR": "127.0.0.1", "NODE_RANK": "0"}):
        assert plan(environment, 1, True) == (1, 1, [], {})
        assert plan(environment, 1, False).launcher == []


def test_one_machine_takes_a_free_port_unless_told():
    found = plan({"NPROC": "3"}, 8, True)
    assert (found.nodes, found.nproc) == (1, 3) and found.launcher[:4] == TORCHRUN
    assert words({}).endswith("--nproc_per_node 8 --max_restarts 0 --standalone --local_addr 127.0.0.1")
    assert "--max_restarts 2 --standalone" in words({"MAX_RESTARTS": "2"}, 1)  # a single process comes back too
    assert words({"MASTER_PORT": "1234"}).endswith("--master_addr 127.0.0.1 --master_port 1234")


def test_without_torchrun_the_older_launcher_is_given_a_free_port(monkeypatch):
    monkeypatch.setattr(launch, "free_port", lambda: 4321)
    found = plan({}, 8, False)
    assert found.launcher[:5] == OLDER
    assert " ".join(found.launcher[5:]) == (
        "1 --node_rank 0 --nproc_per_node 8 --master_addr 127.0.0.1 --master_port 4321")
    assert words({"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "10.0.0.1"}, 8, False).endswith(
        "2 --node_rank 1 --nproc_per_node 8 --master_addr 10.0.0.1 --master_port 29500")


def test_several_machines_by_the_first_ones_address():
    found = plan({"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "127.0.0.1", "NPROC": "4"}, 8, True)
    assert " ".join(found.launcher[3:]) == (
        "--nnodes 2 --nproc_per_node 4 --max_restarts 0 --node_rank 1 --master_addr 127.0.0.1 --master_port 29500")
    assert found.exports == {"GLOO_SOCKET_IFNAME": "lo", "HCCL_IF_IP": "127.0.0.1"}
    told = {"GLOO_SOCKET_IFNAME": "eth7", "HCCL_IF_IP": "10.9.9.9"}
    assert plan(dict(told, NNODES="2", NODE_RANK="1", MASTER_ADDR="127.0.0.1"), 8, True).exports == {}


@pytest.mark.parametrize("rank, host", [({}, 1), ({"NODE_RANK": "0"}, 1), ({"NODE_RANK": "1"}, 0)])
def test_machines_meet_at_an_endpoint_and_one_of_them_serves_it(rank, host):
    text = words(dict(rank, NNODES="2", RDZV_ENDPOINT="127.0.0.1:29500", MAX_RESTARTS="3"))
    assert text.endswith(
        "--nnodes 2 --nproc_per_node 8 --max_restarts 3 --rdzv_backend c10d --rdzv_endpoint 127.0.0.1:29500 --rdzv_id "
        "glore --rdzv_conf is_host=%d,join_timeout=600 --local_addr 127.0.0.1" % host)


def test_slurm_says_it_all():
    found = plan(SLURM, 8, True)
    assert " ".join(found.launcher[3:]) == (
        "--nnodes 2 --nproc_per_node 8 --max_restarts 0 --node_rank 1 --master_addr gpu03 --master_port 23456")
    step = dict(SLURM, SLURM_STEP_NUM_NODES="3", SLURM_STEP_NODELIST="a-[7,9]-b,c", SLURM_STEP_TASKS_PER_NODE="1(x3)")
    assert "--nnodes 3" in words(step) and "--master_addr a-7-b " in words(step)
    assert "is_host=0" in words(dict(SLURM, RDZV_ENDPOINT="127.0.0.1:1"))  # the first machine serves it
    assert "--master_addr 127.0.0.1 --master_port 9" in words(dict(SLURM, MASTER_ADDR="127.0.0.1", MASTER_PORT="9"))
    for alone in (dict(SLURM, SLURM_NNODES="1"), dict(SLURM, NNODES="1", NODE_RANK="0")):
        assert "--standalone" in words(alone)


@pytest.mark.parametrize("nodelist, host", [
    ("gpu1", "gpu1"), ("gpu[03-05,9],cpu1", "gpu03"), ("a[1-2]b[07,9]", "a1b07"), ("[10-12]", "10"),
    ("n-1.site.org,n-2.site.org", "n-1.site.org")])
def test_the_first_of_slurms_hosts(nodelist, host):
    assert first_host(nodelist) == host


MASTER = {"NNODES": "2", "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
ENDPOINT = {"NNODES": "2", "RDZV_ENDPOINT": "127.0.0.1:1"}


@pytest.mark.parametrize("environment, has_torchrun, name", [
    ({"NPROC": "x"}, True, "NPROC=x"), ({"NPROC": "0"}, True, "NPROC=0"), ({"NNODES": "-2"}, True, "NNODES=-2"),
    ({"MAX_RESTARTS": "1.5"}, True, "MAX_RESTARTS=1.5"), ({"NNODES": "2"}, True, "MASTER_ADDR is missing"),
    ({"NNODES": "2", "MASTER_ADDR": "a"}, True, "NODE_RANK is missing"),
    (dict(MASTER, NODE_RANK="2"), True, "NODE_RANK=2"),
    (dict(MASTER, MASTER_PORT="no"), True, "MASTER_PORT=no"), (dict(MASTER, MAX_RESTARTS="1"), True, "MAX_RESTARTS=1"),
    (dict(ENDPOINT, MASTER_ADDR="b"), True, "MASTER_ADDR=b"), (dict(ENDPOINT, MASTER_PORT="1"), True, "MASTER_PORT=1"),
    (dict(ENDPOINT, RDZV_ENDPOINT="host"), True, "RDZV_ENDPOINT=host"), (ENDPOINT, False, "RDZV_ENDPOINT"),
    ({"MAX_RESTARTS": "1"}, False, "MAX_RESTARTS"), ({"NODE_RANK": "1"}, True, "NODE_RANK=1"),
    ({"MASTER_ADDR": "192.0.2.1"}, True, "MASTER_ADDR=192.0.2.1"), (dict(SLURM, SLURM_NODEID=""), True, "SLURM_NODEID"),
    (dict(SLURM, SLURM_STEP_TASKS_PER_NODE="8(x2)"), True, "SLURM_STEP_TASKS_PER_NODE=8"),
    (dict(SLURM, SLURM_JOB_NODELIST=",a"), True, "SLURM_JOB_NODELIST=,a")])
def test_what_does_not_go_together_is_named(environment, has_torchrun, name):
    with pytest.raises(LaunchError) as refused:
        plan(environment, 8, has_torchrun)
    assert name in str(refused.value) and "\n" not in str(refused.value)


def test_restarts_want_a_resume(monkeypatch, capsys):
    monkeypatch.setenv("MAX_RESTARTS", "3")
    assert launch.main(["8", "--amp"]) == 2 and "MAX_RESTARTS=3" in capsys.readouterr().err
    assert launch.main(["8", "--resume", "auto"]) == 0 and "--max_restarts 3" in capsys.readouterr().out


def test_addresses_are_found_by_looking():
    assert own_address("127.0.0.1") == "127.0.0.1" and own_address("no-such-host.invalid") is None
    assert is_own_address("127.0.0.2") and not is_own_address("192.0.2.1")
    assert launch.interface_of("127.0.0.1") == "lo" and launch.interface_of("192.0.2.1") is None
