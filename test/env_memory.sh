# shellcheck shell=bash
# Sourced by test/launch.sh: on a CPU, freed memory stays with the process and comes in huge pages where the system has them, so that
# a step does not fill it page by page again (benchmarks/step.md). Elsewhere does nothing; what you have set yourself stays.
glore_set_memory_environment() {
  export MALLOC_TRIM_THRESHOLD_=${MALLOC_TRIM_THRESHOLD_:-4294967296} MALLOC_MMAP_THRESHOLD_=${MALLOC_MMAP_THRESHOLD_:-33554432}
  export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1} THP_MEM_ALLOC_ENABLE=${THP_MEM_ALLOC_ENABLE:-1}
}

case " $* " in
  *" --device cpu "* | *" --device=cpu "*) glore_set_memory_environment ;;
  *" --device cuda "* | *" --device=cuda "* | *" --device npu "* | *" --device=npu "*) ;;
  *) if [ ! -e /dev/nvidiactl ] && [ ! -e "${GLORE_NPU_DRIVER:-/dev/davinci_manager}" ]; then glore_set_memory_environment; fi ;;
esac
