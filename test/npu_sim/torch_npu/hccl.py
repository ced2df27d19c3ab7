"""A process group `hccl`: gloo over copies on the host. It takes npu tensors alone, as the real one does."""
import datetime
from typing import Any, Callable, List

import torch
import torch.distributed as dist

_Tensors = List[torch.Tensor]


class HcclOverGloo(dist.ProcessGroup):
    """The collectives that DDP and the toolkit use."""

    def __init__(self, store: dist.Store, rank: int, size: int, timeout: datetime.timedelta) -> None:
        super().__init__(rank, size)
        self._gloo = dist.ProcessGroupGloo(store, rank, size, timeout)

    def getBackendName(self) -> str:  # noqa: N802  torch's own spelling
        return "hccl"

    def allreduce(self, tensors: _Tensors, opts: Any = None) -> Any:
        return self._staged(tensors, lambda host: self._gloo.allreduce(host, opts))

    def broadcast(self, tensors: _Tensors, opts: Any = None) -> Any:
        return self._staged(tensors, lambda host: self._gloo.broadcast(host, opts))

    def allgather(self, outputs: List[_Tensors], inputs: _Tensors, opts: Any = None) -> Any:
        [out], [mine] = outputs, inputs
        return self._staged([*out, mine], lambda host: self._gloo.allgather([host[:-1]], [host[-1]]))

    def barrier(self, opts: Any = None) -> Any:
        return self._staged([], lambda host: self._gloo.barrier())

    def _staged(self, tensors: _Tensors, start: Callable[[_Tensors], Any]) -> Any:
        for tensor in tensors:
            if tensor.device.type != "npu":
                raise RuntimeError("hccl: a tensor on %s; it carries npu tensors alone" % tensor.device)
        host = [tensor.detach().cpu() for tensor in tensors]
        start(host).wait()
        with torch.no_grad():
            for tensor, value in zip(tensors, host):
                tensor.detach().copy_(value)
        done = torch.futures.Future()
        done.set_result(tensors)
        return torch._C._distributed_c10d._create_work_from_future(done)


def register() -> None:
    """Makes `hccl` known to torch.distributed."""
    dist.Backend.register_backend("hccl", HcclOverGloo, devices=["npu"])
