package main

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/containernetworking/cni/pkg/types"
)

const (
	maxArgs     = 16 << 10 // bytes of CNI_ARGS
	maxArgPairs = 64
	maxArgValue = 253 // bytes, as a name in Kubernetes has at most
)

// args are what we use of CNI_ARGS.
type args struct {
	Namespace, Pod, UID string // K8S_POD_NAMESPACE, K8S_POD_NAME, K8S_POD_UID
	LogicalPort         string
	MAC                 string
}

// parseArgs reads CNI_ARGS: pairs KEY=VALUE with semicolons between them. A key may be there once. One that nobody knows is
// an error unless IgnoreUnknown is true.
func parseArgs(s string) (args, error) {
	var a args
	if s == "" {
		return a, nil
	}
	if len(s) > maxArgs || strings.Count(s, ";") >= maxArgPairs {
		return a, argsError("has more than %d bytes or %d pairs", maxArgs, maxArgPairs)
	}
	var ignore string
	known := map[string]*string{
		"IgnoreUnknown":              &ignore,
		"K8S_POD_NAMESPACE":          &a.Namespace,
		"K8S_POD_NAME":               &a.Pod,
		"K8S_POD_UID":                &a.UID,
		"K8S_POD_INFRA_CONTAINER_ID": new(string),
		"LogicalPort":                &a.LogicalPort,
		"MAC":                        &a.MAC,
		"IP":                         new(string), // host-local's
	}
	seen := map[string]bool{}
	var unknown []string
	for pair := range strings.SplitSeq(s, ";") {
		key, value, ok := strings.Cut(pair, "=")
		switch {
		case !ok || key == "":
			return a, argsError("%.80q: not KEY=VALUE", pair)
		case seen[key]:
			return a, argsError("%.80q: there twice", key)
		case known[key] == nil:
			unknown = append(unknown, key)
		case len(value) > maxArgValue:
			return a, argsError("%s: longer than %d bytes", key, maxArgValue)
		case !utf8.ValidString(value) || strings.ContainsFunc(value, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }):
			return a, argsError("%s=%q: white space or unprintable characters", key, value)
		default:
			*known[key] = value
		}
		seen[key] = true
	}
	switch strings.ToLower(ignore) { // as types.UnmarshallableBool reads it
	case "1", "true":
	case "", "0", "false":
		if len(unknown) > 0 {
			return a, argsError("%.80q: unknown, and IgnoreUnknown is not set", unknown[0])
		}
	default:
		return a, argsError("IgnoreUnknown=%.80q: want true or false", ignore)
	}
	return a, nil
}

func argsError(format string, a ...any) error {
	return types.NewError(types.ErrInvalidEnvironmentVariables, "offload-cni CNI_ARGS: "+fmt.Sprintf(format, a...), "")
}

// logicalPort names the logical port: what the runtime says for this container goes before the network's configuration, and
// without either it is the name that ovn-kubernetes gives to a pod's port.
func logicalPort(c *config, a args, containerID, ifname string) (string, error) {
	template := c.LogicalPort
	switch {
	case c.RuntimeConfig.LogicalPort != "":
		return c.RuntimeConfig.LogicalPort, nil
	case a.LogicalPort != "":
		return a.LogicalPort, nil
	case template == "" && (a.Namespace == "" || a.Pod == ""):
		return "", configError("logicalPort", fmt.Errorf("is required, or LogicalPort in CNI_ARGS, or K8S_POD_NAMESPACE and K8S_POD_NAME"))
	case template == "":
		template = "{namespace}_{pod}"
	}
	var b strings.Builder
	for template != "" {
		text, rest, ok := strings.Cut(template, "{")
		b.WriteString(text)
		if !ok {
			break
		}
		name, rest, ok := strings.Cut(rest, "}")
		value, known := map[string]string{
			"namespace": a.Namespace, "pod": a.Pod, "uid": a.UID,
			"network": c.Name, "container": containerID, "ifname": ifname,
		}[name]
		switch {
		case !ok || !known:
			return "", configError("logicalPort", fmt.Errorf("{%s: not {namespace}, {pod}, {uid}, {network}, {container} or {ifname}", name))
		case value == "":
			return "", configError("logicalPort", fmt.Errorf("{%s}: the runtime did not say it in CNI_ARGS", name))
		}
		b.WriteString(value)
		template = rest
	}
	return b.String(), nil
}
