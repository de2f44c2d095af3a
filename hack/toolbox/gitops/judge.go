package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/argoproj/argo-cd/v3/pkg/apis/application/v1alpha1"
	"github.com/argoproj/argo-cd/v3/util/lua"
	"github.com/argoproj/gitops-engine/pkg/health"
	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// opinion is the health that one tool derives from an object.
type opinion struct {
	Status  string `json:"status"`
	Message string `json:"message,omitempty"`
}

// verdict is the JSON line that judgeAll prints for an object.
type verdict struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	Phase     string `json:"phase,omitempty"`
	// Absent if the folder has no check for the kind. Argo CD then considers an object done when it is applied.
	Argo    *opinion `json:"argo,omitempty"`
	Kstatus opinion  `json:"kstatus"`
}

// judgeAll prints a line for each object of the files. Without files, it reads the objects from the input.
func judgeAll(folder string, files []string, input io.Reader, output io.Writer) error {
	overrides, err := readOverrides(folder)
	if err != nil {
		return err
	}
	lines := json.NewEncoder(output)
	judgeOne := func(object *unstructured.Unstructured) error {
		verdict, err := judge(object, overrides)
		if err != nil {
			return fmt.Errorf("%s %s: %w", object.GetKind(), object.GetName(), err)
		}
		return lines.Encode(verdict)
	}
	if len(files) == 0 {
		return forEachObject(input, judgeOne)
	}
	for _, name := range files {
		file, err := os.Open(name)
		if err != nil {
			return err
		}
		err = forEachObject(file, judgeOne)
		_ = file.Close()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// judge returns the verdict about an object. It calls Argo CD as the application controller does, with the scripts as
// entries of argocd-cm. Argo CD therefore also applies its checks that precede a script, for example for an object that
// is being deleted. The only Lua libraries of the scripts are base, table and os.
func judge(object *unstructured.Unstructured, overrides lua.ResourceHealthOverrides) (verdict, error) {
	phase, _, _ := unstructured.NestedString(object.Object, "status", "phase")
	said := verdict{Kind: object.GetKind(), Namespace: object.GetNamespace(), Name: object.GetName(), Phase: phase}
	argo, err := health.GetResourceHealth(object, overrides)
	if err != nil {
		return said, err
	}
	if argo != nil {
		said.Argo = &opinion{Status: string(argo.Status), Message: argo.Message}
	}
	computed, err := status.Compute(object)
	if err != nil {
		return said, err
	}
	said.Kstatus = opinion{Status: computed.Status.String(), Message: computed.Message}
	return said, nil
}

// readOverrides reads the scripts of a folder, and returns them as entries of argocd-cm.
func readOverrides(folder string) (lua.ResourceHealthOverrides, error) {
	overrides := lua.ResourceHealthOverrides{}
	scripts, err := filepath.Glob(filepath.Join(folder, "*", "*", "health.lua"))
	if err != nil {
		return nil, err
	}
	for _, path := range scripts {
		script, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		kind := filepath.Dir(path)
		key := filepath.Base(filepath.Dir(kind)) + "/" + filepath.Base(kind)
		overrides[key] = v1alpha1.ResourceOverride{HealthLua: string(script)}
	}
	if len(overrides) == 0 {
		return nil, fmt.Errorf("there is no GROUP/KIND/health.lua in %s", folder)
	}
	return overrides, nil
}

// forEachObject reads objects from YAML documents, JSON documents or JSON lines, and calls use for each object. For a
// list of objects, it calls use for each item.
func forEachObject(input io.Reader, use func(*unstructured.Unstructured) error) error {
	documents := yaml.NewYAMLOrJSONDecoder(input, 4096)
	for {
		var document json.RawMessage
		if err := documents.Decode(&document); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if len(document) == 0 || string(document) == "null" {
			continue
		}
		// json.Unmarshal would read whole numbers as floats, and kstatus ignores floats.
		object := &unstructured.Unstructured{}
		if err := object.UnmarshalJSON(document); err != nil {
			return err
		}
		if !object.IsList() {
			if err := use(object); err != nil {
				return err
			}
			continue
		}
		list, err := object.ToList()
		if err != nil {
			return err
		}
		for index := range list.Items {
			if err := use(&list.Items[index]); err != nil {
				return err
			}
		}
	}
}

// onlyObject reads the object of an input. Returns an error if the input does not contain exactly one object.
func onlyObject(input io.Reader) (*unstructured.Unstructured, error) {
	var objects []*unstructured.Unstructured
	err := forEachObject(input, func(object *unstructured.Unstructured) error {
		objects = append(objects, object)
		return nil
	})
	if err == nil && len(objects) != 1 {
		err = fmt.Errorf("expected one object, not %d", len(objects))
	}
	if err != nil {
		return nil, err
	}
	return objects[0], nil
}
