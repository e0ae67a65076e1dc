package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/argoproj/argo-cd/v3/pkg/apis/application/v1alpha1"
	"github.com/argoproj/argo-cd/v3/util/lua"
)

// script is one run: a health script, the discovery of actions, or an action, over an object.
type script struct {
	Kind   string         `json:"kind"`
	Script string         `json:"script"`
	Object map[string]any `json:"object"`
}

// answer holds what the engine made of it, or its error.
type answer struct {
	Result any    `json:"result,omitempty"`
	Error  string `json:"error,omitempty"`
}

// runScripts reads a list of scripts as JSON and writes a list of answers. They have the rights of a script in argocd-cm.
func runScripts(in io.Reader, out io.Writer) {
	var scripts []script
	if err := json.NewDecoder(in).Decode(&scripts); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	answers := make([]answer, 0, len(scripts))
	for _, s := range scripts {
		result, err := run(s)
		if err != nil {
			answers = append(answers, answer{Error: err.Error()})
		} else {
			answers = append(answers, answer{Result: result})
		}
	}
	if err := json.NewEncoder(out).Encode(answers); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(s script) (any, error) {
	object := &unstructured.Unstructured{Object: s.Object}
	switch s.Kind {
	case "health":
		kind := object.GroupVersionKind()
		overrides := lua.ResourceHealthOverrides{kind.Group + "/" + kind.Kind: v1alpha1.ResourceOverride{HealthLua: s.Script}}
		return overrides.GetResourceHealth(object)
	case "discovery":
		return lua.VM{}.ExecuteResourceActionDiscovery(object, []string{s.Script})
	case "action":
		changes, err := lua.VM{}.ExecuteResourceAction(object, s.Script, nil)
		if err != nil {
			return nil, err
		}
		if len(changes) != 1 {
			return nil, fmt.Errorf("%d objects", len(changes))
		}
		return changes[0].UnstructuredObj.Object, nil
	}
	return nil, fmt.Errorf("no kind %q", s.Kind)
}
