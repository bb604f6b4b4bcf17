#!/usr/bin/env bash
# Does kill_rounds.py pass an honest server, and name each planted fault of the stand-in?
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
passed=0 failed=0
while read -r fault exit_code expected; do
    status=0
    said=$(STAND_IN_FAULT=$fault python3 kill_rounds.py --program ./stand_in.py --nodes 3 \
        --seed 7 --rounds 6 --state "$scratch/$fault" 2>&1) || status=$?
    if [[ $status == "$exit_code" && $said == *"$expected"* ]]; then
        passed=$((passed + 1))
        echo "ok    $fault"
    else
        failed=$((failed + 1))
        printf 'FAIL  %s: exit %s\n%s\n' "$fault" "$status" "$said"
    fi
done <<'TABLE'
none 0 6 passed, 0 failed
lose 1 LOST
twice 1 TWICE
skip 1 LEFT OUT
TABLE
echo "$passed passed, $failed failed"
[[ $failed == 0 ]]
