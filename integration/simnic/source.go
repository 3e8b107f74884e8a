package simnic

import (
	"context"
	"embed"
	"io"
	"io/fs"

	"github.com/offloadd/offloadd/integration/vm"
)

//go:embed module
var sources embed.FS

// Build builds the module for a kernel of integration/vm, unless it is in the cache, and returns its path. It is called outside
// of a guest: packages may have to be fetched, or a kernel built.
func Build(ctx context.Context, k vm.Kernel, log io.Writer) (string, error) {
	module, err := fs.Sub(sources, "module")
	if err != nil {
		return "", err
	}
	return vm.BuildModule(ctx, k, "simnic", module, log)
}
