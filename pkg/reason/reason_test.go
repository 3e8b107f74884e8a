package reason

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// constants returns the reasons that reason.go declares, by the name of the constant.
func constants(t *testing.T) map[string]Reason {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "reason.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]Reason{}
	ast.Inspect(file, func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if id, ok := v.Type.(*ast.Ident); ok && id.Name == "Reason" {
			text, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			found[v.Names[0].Name] = Reason(text)
		}
		return true
	})
	if len(found) == 0 {
		t.Fatal("no constants found")
	}
	return found
}

// Every reason is in the table once, and has the form that google.rpc.ErrorInfo asks for.
func TestTable(t *testing.T) {
	form := regexp.MustCompile(`^[A-Z][A-Z0-9_]+[A-Z0-9]$`)
	seen := map[Reason]bool{}
	for _, e := range Table {
		if seen[e.Reason] {
			t.Errorf("%s is there twice", e.Reason)
		}
		seen[e.Reason] = true
		if !form.MatchString(string(e.Reason)) || len(e.Reason) > 63 {
			t.Errorf("%s has not the form of ErrorInfo.reason", e.Reason)
		}
		if e.Code == 0 || e.CNI == 0 {
			t.Errorf("%s lacks a code: %+v", e.Reason, e)
		}
		if e.Status != 0 && e.Status != CNIUnavailable && e.Status != CNILimited {
			t.Errorf("%s: STATUS fails with %d or %d, not %d", e.Reason, CNIUnavailable, CNILimited, e.Status)
		}
		for _, s := range []string{e.Meaning, e.Remedy} {
			if len(s) < 10 || !strings.HasSuffix(s, ".") {
				t.Errorf("%s: %q is no sentence", e.Reason, s)
			}
		}
	}
	for name, r := range constants(t) {
		if _, ok := Find(r); !ok {
			t.Errorf("%s = %s is not in the table", name, r)
		}
	}
	if n := len(constants(t)); n != len(Table) {
		t.Errorf("%d constants, %d entries", n, len(Table))
	}
	if e, ok := Find("NO_SUCH"); ok {
		t.Errorf("Find(NO_SUCH) = %+v", e)
	}
}

// A code that says "come again" means that it may help, and the other way round.
func TestRetry(t *testing.T) {
	for _, e := range Table {
		if e.Code == CodeUnavailable && !e.Retry {
			t.Errorf("%s is UNAVAILABLE, but not to be retried", e.Reason)
		}
		if e.Retry && (e.Code == CodeInvalidArgument || e.Code == CodePermissionDenied || e.Code == CodeUnimplemented) {
			t.Errorf("%s has code %d, but may be retried", e.Reason, e.Code)
		}
		if e.CNI == CNITryLater && e.Code == CodeInvalidArgument {
			t.Errorf("%s asks the runtime to try an invalid request again", e.Reason)
		}
	}
}

func TestOf(t *testing.T) {
	deep := fmt.Errorf("outer: %w", Errorf(NetnsGone, "ports move %s: %w", "eth0", fs.ErrNotExist).With("netns", "/x"))
	for _, c := range []struct {
		err  error
		want Reason
	}{
		{nil, ""},
		{deep, NetnsGone},
		{Errorf(SBDisconnected, "x: %w", deep), SBDisconnected},
		{fmt.Errorf("x: %w", context.Canceled), Cancelled},
		{context.DeadlineExceeded, DeadlineExceeded},
		{Errorf(OVNNotInstalled, "x: %w", context.DeadlineExceeded), OVNNotInstalled},
		{errors.New("x"), Internal},
	} {
		if got := Of(c.err); got != c.want {
			t.Errorf("Of(%v) = %s, want %s", c.err, got, c.want)
		}
	}
	if !errors.Is(deep, fs.ErrNotExist) || deep.Error() != "outer: ports move eth0: file does not exist" {
		t.Errorf("%v does not wrap its cause", deep)
	}
}
