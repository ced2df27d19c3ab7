# shellcheck shell=bash
# Sourced by test/launch.sh: where there is an NPU, finds Ascend's CANN and sets what NPU runs want; elsewhere does nothing.
# What you have set yourself stays. GLORE_NPU_DRIVER, GLORE_CANN_INFO and GLORE_CANN_ROOTS move the places it looks at.

# Prints CANN's set_env.sh: below ASCEND_TOOLKIT_HOME, where the installer's note says, or in the default folders.
glore_find_cann() {
  local info=${GLORE_CANN_INFO:-/etc/Ascend/ascend_cann_install.info} root part file
  local roots=("${ASCEND_TOOLKIT_HOME:-}" "${ASCEND_TOOLKIT_HOME:+$ASCEND_TOOLKIT_HOME/..}")
  for file in "$info" "$HOME/Ascend/ascend_cann_install.info"; do
    [ -r "$file" ] && while IFS= read -r root; do roots+=("$root"); done < <(sed -n 's/^Install_Path=//p' "$file")
  done
  IFS=: read -ra root <<<"${GLORE_CANN_ROOTS:-/usr/local/Ascend:$HOME/Ascend}"
  roots+=("${root[@]}")
  for root in "${roots[@]}"; do
    for part in ascend-toolkit cann nnae .; do
      file=$root/$part/set_env.sh
      if [ -n "$root" ] && [ -r "$file" ]; then
        printf '%s\n' "$file"
        return
      fi
    done
  done
}

glore_set_npu_environment() {
  local cann
  cann=$(glore_find_cann)
  if [ -z "$cann" ]; then
    echo "An NPU is here, but no CANN toolkit: no set_env.sh in /usr/local/Ascend or ~/Ascend, nor where /etc/Ascend/ascend_cann_install.info says." >&2
    echo "Install CANN (docs/NPU.md), or set ASCEND_TOOLKIT_HOME to its folder; to train without the NPU add: --device cpu" >&2
    exit 2
  fi
  set +eu # CANN's script is not written for strict shells
  # shellcheck disable=SC1090
  . "$cann"
  set -eu
  export ASCEND_SLOG_PRINT_TO_STDOUT=${ASCEND_SLOG_PRINT_TO_STDOUT:-0} # logs: not on the screen,
  export ASCEND_GLOBAL_LOG_LEVEL=${ASCEND_GLOBAL_LOG_LEVEL:-3}         # errors alone,
  export ASCEND_GLOBAL_EVENT_ENABLE=${ASCEND_GLOBAL_EVENT_ENABLE:-0}   # no events
  export TASK_QUEUE_ENABLE=${TASK_QUEUE_ENABLE:-1} PTCOPY_ENABLE=${PTCOPY_ENABLE:-1} COMBINED_ENABLE=${COMBINED_ENABLE:-1}
  export HCCL_WHITELIST_DISABLE=${HCCL_WHITELIST_DISABLE:-1}
  local address
  address=${HCCL_IF_IP:-$(hostname -I 2>/dev/null | awk '{print $1; exit}' || true)}
  [ -z "$address" ] || export HCCL_IF_IP=$address
  ulimit -SHn 512000 2>/dev/null || ulimit -Sn "$(ulimit -Hn)" 2>/dev/null || true
}

case " $* " in
  *" --device cpu "* | *" --device=cpu "* | *" --device cuda "* | *" --device=cuda "*) ;; # the NPU is not wanted
  *) if [ -e "${GLORE_NPU_DRIVER:-/dev/davinci_manager}" ]; then glore_set_npu_environment; fi ;;
esac
