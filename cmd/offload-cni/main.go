// Command offload-cni is a CNI plugin whose pods are ports of OVN: it asks the daemon offloadd, by gRPC, to make and remove
// them.
//
// It keeps nothing itself. docs/cni.md has its configuration and its error codes.
package main

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/version"
)

func main() {
	err := skel.PluginMainFuncsWithError(skel.CNIFuncs{
		Add:    verb(add, strict),
		Check:  verb(check, strict),
		Status: verb(status, strict),
		Del:    verb(del, lenient),
		GC:     verb(gc, lenient),
	}, version.PluginSupports("0.3.1", "0.4.0", "1.0.0", "1.1.0"), "offload-cni "+buildVersion())
	if err == nil {
		return
	}
	if err := err.Print(); err != nil {
		fmt.Fprintln(os.Stderr, "offload-cni:", err)
	}
	os.Exit(1)
}

// verb makes of one of our functions one that skel calls; skel wants errors to be *types.Error.
func verb(do func(context.Context, *request) error, care strictness) func(*skel.CmdArgs) error {
	return func(args *skel.CmdArgs) error {
		r, err := newRequest(args, care)
		if err == nil {
			ctx, cancel := context.WithTimeout(context.Background(), r.timeout())
			defer cancel()
			err = do(r.traced(ctx), r)
		}
		if err != nil {
			return cniError(err)
		}
		return nil
	}
}

func buildVersion() string {
	if bi, ok := debug.ReadBuildInfo(); ok && bi.Main.Version != "" {
		return bi.Main.Version
	}
	return "(devel)"
}
