#!/usr/bin/env bash
# Trains on a slice of Cloud TPUs, asked for as a queued resource.
#
#   export NAME=restore ZONE=us-east5-b TYPE=v6e-16
#   bash launch/tpu_vm.sh train --config restore --workdir gs://BUCKET/restore
#
# `train` creates the slice, waits for it, installs the last commit of this checkout and runs; it
# starts over what stopped or was preempted, at most RESTARTS times, and deletes the slice when all
# is done. Where the run fails, the slice stays, and costs, until you delete it. Each step alone:
#
#   create | wait | install | preflight FLAGS | run FLAGS | status | logs [-f] | stop | delete
#
# May be set too: PROJECT, VERSION (of the runtime), SPOT=0 (dearer, not preempted), POLL (seconds).
# DRY_RUN=1 prints what gcloud would be asked.
set -euo pipefail
: "${NAME:?name of the slice}" "${ZONE:?zone, such as us-east5-b}"
poll=${POLL:-30}
cd "$(dirname "$0")/.."
exec 3>&1 # what DRY_RUN prints, also where an answer is expected

cloud() { # group command arguments ...
  set -- gcloud compute tpus "$@" --zone="$ZONE" ${PROJECT:+--project="$PROJECT"}
  if [ -n "${DRY_RUN:-}" ]; then
    printf '%q ' "$@" >&3
    echo >&3
  else
    "$@"
  fi
}
everywhere() { cloud tpu-vm ssh "$NAME" --worker=all --command="$1"; }
state() { # of the slice, "" where there is none; asked some times where no answer comes
  local answer tries
  for tries in 1 2 3 4 5; do
    if answer=$(cloud queued-resources describe "$NAME" --format='value(state.state)' 2>&1); then
      grep -xE '[A-Z_]+' <<< "$answer" || true # gcloud may have warned of something, too
      return
    fi
    [[ $answer == *NOT_FOUND* ]] && return
    ((tries < 5)) && sleep "$poll"
  done
  echo "$answer" >&2
  exit 1
}

create() {
  local version=${VERSION:-} spot=(--spot)
  [ "${SPOT:-1}" = 1 ] || spot=()
  case ${TYPE:?accelerator type, such as v6e-16} in
    v6e-*) version=${version:-v2-alpha-tpuv6e} ;;
    v5litepod-*) version=${version:-v2-alpha-tpuv5-lite} ;;
    v5p-*) version=${version:-v2-alpha-tpuv5} ;;
  esac
  cloud queued-resources create "$NAME" --node-id="$NAME" --accelerator-type="$TYPE" \
    --runtime-version="${version:?runtime version of $TYPE}" "${spot[@]}"
}

delete() { cloud queued-resources delete "$NAME" --force --quiet; }

wait_for_it() { # fails where it will never be there
  local now
  while true; do
    now=$(state)
    [ -z "${DRY_RUN:-}" ] || return 0
    case $now in
      ACTIVE) return 0 ;;
      ACCEPTED | CREATING | PROVISIONING | WAITING_FOR_RESOURCES) sleep "$poll" ;;
      *)
        echo "$NAME: is ${now:-not there}; delete it and create it again" >&2
        return 1
        ;;
    esac
  done
}

install() {
  local folder
  folder=$(mktemp -d)
  git archive --output="$folder/source.tar" HEAD -- \
    pyproject.toml README.md LICENSE configs diffv2iqa_jax
  cloud tpu-vm scp "$folder/source.tar" "$NAME:" --worker=all
  rm -r "$folder"
  # The images' own Python is older than what we need: uv brings another.
  everywhere 'set -e
flock --nonblock run.lock true || { echo "a run goes on: stop it first"; exit 1; }
rm -rf source venv; mkdir source; tar -xf source.tar -C source
python3 -m pip install --quiet --user uv; ~/.local/bin/uv venv --quiet --python 3.12 venv
~/.local/bin/uv pip install --quiet --python venv/bin/python "./source[tpu,gs]"'
}

ours() { printf '%q ' venv/bin/python -m diffv2iqa_jax."$1" "${@:2}" --distributed; }

preflight() { everywhere "$(ours preflight "$@")"; }

run() { # goes on when the connection ends
  local task
  task=$(printf '%q' "$(ours main "$@"); echo \$? > exit_code")
  everywhere "flock --nonblock run.lock rm -f exit_code || { echo a run goes on; exit 1; }
nohup setsid flock run.lock bash -c $task >> run.log 2>&1 < /dev/null &"
}

stop() { everywhere 'pkill --full --signal TERM "python -m diffv2iqa_jax.main"'; }

status() { # a line for each host: its name, its exit code or what it does
  # shellcheck disable=SC2016 # each host fills it in
  everywhere 'if [ -f exit_code ]; then now=$(cat exit_code)
elif flock --nonblock run.lock true; then now=idle; else now=running; fi; echo "$(hostname) $now"'
}

logs() { # of all hosts
  # shellcheck disable=SC2016
  everywhere "tail $(printf '%q ' "$@")"'run.log | sed "s/^/$(hostname): /"'
}

verdict() { # waits for the end of a run; prints the exit code, or "again"
  local now codes
  while sleep "$poll"; do
    now=$(state)
    [ "$now" = ACTIVE ] || { echo again && return; }
    codes=$(status 2>/dev/null | awk '{print $NF}') || continue # no answer: ask again
    case " ${codes//$'\n'/ } " in
      *" 2 "* | *" 1 "* | *" 70 "*) grep -m 1 -xE '2|1|70' <<< "$codes" && return ;;
      *" running "*) ;;
      *) [ -z "${codes//[0$'\n']/}" ] && echo 0 || echo again && return ;;
    esac
  done
}

train() {
  local now result tries limit=${RESTARTS:-20} prepare=install
  if [ -n "${DRY_RUN:-}" ]; then
    create && wait_for_it && install && run "$@" && status && delete
    return
  fi
  for ((tries = 0; tries <= limit; tries++)); do
    now=$(state)
    case $now in
      "") create && prepare=install ;;
      SUSPENDED | FAILED) delete && create && prepare=install ;;
    esac
    if wait_for_it && { status | grep -q running || { $prepare && run "$@"; }; }; then
      prepare=true
      result=$(verdict)
      case $result in
        0) delete && return ;;
        again) ;;
        *) echo "exit code $result: see the logs; $NAME stays, and costs" >&2 && return "$result" ;;
      esac
    fi
    echo "stopped, lost or not to be had: once more" >&2
    sleep "$poll"
  done
  echo "not done after $limit more tries; $NAME stays, and costs" >&2
  return 75
}

case ${1:-} in
  create | install | preflight | run | status | logs | stop | delete | train) "$@" ;;
  wait) wait_for_it ;;
  *)
    echo "usage: NAME=... ZONE=... bash launch/tpu_vm.sh COMMAND; its head lists the commands" >&2
    exit 2
    ;;
esac
