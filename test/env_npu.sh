# shellcheck shell=bash
# Sourced by test/launch.sh: finds Ascend's CANN and sets what NPU runs want. Does nothing where there is no NPU driver.
glore_find_cann() {
  local info=/etc/Ascend/ascend_cann_install.info path
  for path in "${ASCEND_TOOLKIT_HOME:-}" "$([ -r "$info" ] && sed -n 's/^Install_Path=//p' "$info" || true)" /usr/local/Ascend/ascend-toolkit "$HOME/Ascend/ascend-toolkit"; do
    [ -n "$path" ] && [ -r "$path/set_env.sh" ] && { printf '%s\n' "$path/set_env.sh"; return; }
  done
}
if [ -e /dev/davinci_manager ]; then
  glore_cann=$(glore_find_cann)
  if [ -z "$glore_cann" ]; then
    echo "An NPU is here, but no CANN toolkit (set_env.sh) was found; install it, or set ASCEND_TOOLKIT_HOME to its folder." >&2
    exit 2
  fi
  set +u
  # shellcheck disable=SC1090
  . "$glore_cann"
  set -u
  export ASCEND_SLOG_PRINT_TO_STDOUT=0 ASCEND_GLOBAL_LOG_LEVEL=${ASCEND_GLOBAL_LOG_LEVEL:-3} ASCEND_GLOBAL_EVENT_ENABLE=0
  export TASK_QUEUE_ENABLE=${TASK_QUEUE_ENABLE:-1} PTCOPY_ENABLE=1 COMBINED_ENABLE=1 HCCL_WHITELIST_DISABLE=${HCCL_WHITELIST_DISABLE:-1}
  ulimit -SHn 512000 2>/dev/null || ulimit -n "$(ulimit -Hn)" || true
fi
