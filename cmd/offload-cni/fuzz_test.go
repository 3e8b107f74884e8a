package main

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
)

// What the runtime passes on from others is refused with a documented code, or gives names of bounded length and without white
// space.
func FuzzArgs(f *testing.F) {
	for _, s := range []string{"", "IgnoreUnknown=1;K8S_POD_NAMESPACE=a;K8S_POD_NAME=b;X=y", "LogicalPort=p;LogicalPort=q", "=;;=", "MAC=0a:00:00:00:00:01", "LogicalPort=a=b"} {
		f.Add(s, "{namespace}_{pod}")
	}
	f.Add("K8S_POD_NAME={uid}", "{pod}{")
	f.Fuzz(func(t *testing.T, s, template string) {
		a, err := parseArgs(s)
		if err != nil {
			wantCode(t, err, types.ErrInvalidEnvironmentVariables)
			return
		}
		for _, v := range []string{a.Namespace, a.Pod, a.UID, a.LogicalPort, a.MAC} {
			if len(v) > maxArgValue || strings.ContainsAny(v, " \t\n;") {
				t.Errorf("parseArgs(%q) = %+v", s, a)
			}
		}
		if _, err := logicalPort(&config{Name: "n", LogicalPort: template}, a, "c", "eth0"); err != nil {
			wantCode(t, err, types.ErrInvalidNetworkConfig)
		}
	})
}

// A configuration is refused with a documented code, or fit for a call. What is fit to add something is fit to remove it.
func FuzzConfig(f *testing.F) {
	for _, s := range []string{
		`{"cniVersion":"1.1.0","name":"n","type":"offload-cni","mtu":1400,"routes":[{"dst":"10.0.0.0/8"}],"timeout":"5s"}`,
		`{"cniVersion":"0.4.0","ipam":{"type":"host-local"},"runtimeConfig":{"ips":["10.0.0.1/8"]},"prevResult":{"interfaces":null}}`,
		`{"cniVersion":"1.1.0","prevResult":{"ips":[{"address":"10.0.0.1/8","interface":7}]},"cni.dev/valid-attachments":[{"containerID":"c","ifname":"e"}]}`,
		`{"cni.dev/valid-attachments":null,"capabilities":{"mac":true},"dns":{}}`, `null`, `[]`, `{"addressing":"ipam"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, stdin []byte) {
		c, err := parseConfig(stdin, strict)
		_, lenientErr := parseConfig(stdin, lenient)
		switch {
		case err != nil:
			wantCode(t, err, types.ErrDecodingFailure, types.ErrInvalidNetworkConfig)
		case lenientErr != nil:
			t.Errorf("%q: good for ADD, but for DEL %v", stdin, lenientErr)
		case c.Timeout <= 0:
			t.Errorf("%q: timeout %v", stdin, c.Timeout)
		}
		if list, known, err := attachments(stdin); err != nil {
			wantCode(t, err, types.ErrDecodingFailure, types.ErrInvalidNetworkConfig)
		} else if !known && len(list) > 0 {
			t.Errorf("%q: attachments %v, but not known", stdin, list)
		}
	})
}

func wantCode(t *testing.T, err error, codes ...uint) {
	t.Helper()
	if e, ok := errors.AsType[*types.Error](err); !ok || !slices.Contains(codes, e.Code) {
		t.Errorf("%v: want an error with code %v", err, codes)
	}
}
