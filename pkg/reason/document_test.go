package reason

import (
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/reasons.md")

// The names of google/rpc/code.proto.
var codeNames = map[Code]string{
	CodeCancelled: "CANCELLED", CodeInvalidArgument: "INVALID_ARGUMENT", CodeDeadlineExceeded: "DEADLINE_EXCEEDED",
	CodeNotFound: "NOT_FOUND", CodeAlreadyExists: "ALREADY_EXISTS", CodePermissionDenied: "PERMISSION_DENIED",
	CodeResourceExhausted: "RESOURCE_EXHAUSTED", CodeFailedPrecondition: "FAILED_PRECONDITION", CodeAborted: "ABORTED",
	CodeUnimplemented: "UNIMPLEMENTED", CodeInternal: "INTERNAL", CodeUnavailable: "UNAVAILABLE", CodeDataLoss: "DATA_LOSS",
}

// block prints commands as a block of code.
func block(commands []string) string { return "```\n" + strings.Join(commands, "\n") + "\n```\n" }

// docs/reasons.md is what the table says.
func TestDocument(t *testing.T) {
	const file = "../../docs/reasons.md"
	var b strings.Builder
	b.WriteString(`<!-- Generated from the table in pkg/reason: go generate ./pkg/reason. -->

# Reasons

What can go wrong has a stable name: in the errors of the API (google.rpc.ErrorInfo, domain ` + "`" + Domain + "`" + `), in the details of CNI
errors, in the status of ports and subsystems, on the command line and in the log. *Code* is that of gRPC, *CNI* the error code
with which ADD, DEL and CHECK fail, *STATUS* that of the CNI verb STATUS while it is so. *Retry* says whether the same call may succeed
later without anybody doing anything.

For each reason there is what it means, how it is seen, commands that show what is wrong and change nothing, and how to mend it. Words in
capitals are to be replaced: PORT is a logical port or NETWORK/CONTAINER/IFNAME, NETNS what ip-netns(8) calls a container's namespace, DEVICE
the devlink handle of a NIC, FUNCTION that of the port of a VF or SF. Where there is no Kubernetes its commands stand for those of what makes
the containers: to delete a pod is a CNI DEL, and an ADD when it comes again.

| reason | code | CNI | STATUS | retry |
| --- | --- | --- | --- | --- |
`)
	for _, e := range Table {
		name := codeNames[e.Code]
		if name == "" {
			t.Fatalf("code %d has no name", e.Code)
		}
		status, retry := "", ""
		if e.Status != 0 {
			status = strconv.Itoa(int(e.Status))
		}
		if e.Retry {
			retry = "yes"
		}
		fmt.Fprintf(&b, "| [%s](#%s) | %s | %d | %s | %s |\n", e.Reason, strings.ToLower(string(e.Reason)), name, e.CNI, status, retry)
	}
	for _, e := range Table {
		r := e.Runbook()
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n*Seen:* %s\n\n*Look:*\n\n%s\n*Mend:* %s\n", e.Reason, e.Meaning, r.Seen, block(r.Look), e.Remedy)
		if len(r.Mend) > 0 {
			b.WriteString("\n" + block(r.Mend))
		}
	}
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != b.String() {
		t.Errorf("%s is not what the table says: go generate ./pkg/reason", file)
	}
}
