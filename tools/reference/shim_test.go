// A suite of containernetworking/plugins, with an executable in place of the functions it calls: tools/bootstrap
// puts this file beside a suite and gives the suite's own cmdAdd and its kind other names.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/onsi/ginkgo/v2"
)

// A spec is a node of its own; what a failed one leaves is not there for the next. Its network namespaces are new anyway.
var _ = ginkgo.BeforeEach(func() { _ = os.RemoveAll("/run/agent-cni") })

func cmdAdd(args *skel.CmdArgs) error {
	result, err := called("ADD", args)
	if err == nil {
		_, err = os.Stdout.Write(result) // testutils.CmdAdd has put a pipe there
	}
	return err
}

func cmdCheck(args *skel.CmdArgs) error {
	_, err := called("CHECK", args)
	return err
}

func cmdDel(args *skel.CmdArgs) error {
	_, err := called("DEL", args)
	return err
}

func cmdStatus(args *skel.CmdArgs) error {
	_, err := called("STATUS", args)
	return err
}

// called runs $PLUGIN in the network namespace of this thread, as a runtime would. The report of a spec has an entry for
// each call.
func called(verb string, args *skel.CmdArgs) ([]byte, error) {
	ginkgo.AddReportEntry(verb, ginkgo.ReportEntryVisibilityNever)
	plugin := exec.Command(os.Getenv("PLUGIN"))
	plugin.Env = append(os.Environ(),
		"CNI_COMMAND="+verb,
		"CNI_CONTAINERID="+args.ContainerID,
		"CNI_NETNS="+args.Netns,
		"CNI_IFNAME="+args.IfName,
		"CNI_ARGS="+strings.TrimSuffix("IgnoreUnknown=1;"+args.Args, ";"),
		"CNI_PATH="+os.Getenv("PATH"),
		"CNI_NETNS_OVERRIDE=1",
	)
	plugin.Stdin = bytes.NewReader(args.StdinData)
	plugin.Stderr = ginkgo.GinkgoWriter
	document, err := plugin.Output()
	if err == nil {
		return document, nil
	}
	said := &types.Error{}
	if json.Unmarshal(document, said) != nil {
		return nil, fmt.Errorf("%w; it printed: %s", err, document)
	}
	return nil, said
}
