package control

import (
	"context"
	"slices"

	"consort.dev/consort/estate"
	"consort.dev/consort/plane/store"
)

// WantLayers asks for the layers that the chosen applications still lack for the
// image of that name: an entry without a digest is an order to the agents. What is
// not there, or not imported yet, is left to a later call.
func WantLayers(ctx context.Context, s *store.Store, images []*estate.Image, applications []*estate.Application, image string, chosen []estate.ApplicationChoice) error {
	at := slices.IndexFunc(images, func(i *estate.Image) bool { return i.Metadata.Name == image })
	if at < 0 || images[at].Status.Digest == "" {
		return nil
	}
	digest := images[at].Status.Digest
	for _, choice := range chosen {
		i := slices.IndexFunc(applications, func(a *estate.Application) bool { return a.Metadata.Name == choice.Name })
		if i < 0 {
			continue
		}
		app := applications[i]
		version, ok := app.Spec.Version(choice.Version)
		if _, ordered := app.Status.Layer(version.Name, digest); !ok || ordered {
			continue
		}
		_, err := store.Modify(ctx, s, app.Metadata.Project, app.Metadata.Name, func(a *estate.Application) error {
			if _, ordered := a.Status.Layer(version.Name, digest); !ordered {
				a.Status.Layers = append(a.Status.Layers, estate.LayerBuild{Version: version.Name, Image: digest})
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
