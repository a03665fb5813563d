//! Random text, and serde_yaml as a second opinion.

use proptest::prelude::*;

use super::*;

fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "version: 1\n",
        "sandboxes:\n",
        "  web:\n",
        "    services:\n",
        "      a:\n",
        "        cmd: x\n",
        "        needs: [b, web/a]\n",
        "- ",
        "{",
        "}",
        "[",
        "]",
        "&a ",
        "*a",
        "<<: *a\n",
        "? ",
        ": ",
        ", ",
        "\"",
        "'",
        "|\n",
        ">-\n",
        "!!str ",
        "${env.A",
        "${secret.x}",
        "${var.x:-",
        "}",
        "#",
        "\t",
        "\n",
        "é",
        "health: { tcp: 1 }",
        "ports: [1]",
        "---\n",
        "%YAML 1.2\n",
        "\u{feff}",
        "  ",
        "null",
        "~",
        "env: ",
    ]);
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

fn survives(text: &str) {
    let loaded = load(text);
    assert_eq!(loaded.desired.is_none(), loaded.report.has_errors());
    loaded.report.render_text(true, 60);
    loaded.report.render_json();
    loaded.report.render_sarif();
    loaded.report.render_github();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_it_panic(text in any::<String>()) {
        survives(&text);
    }

    #[test]
    fn no_heap_of_pieces_makes_it_panic(text in pieces()) {
        survives(&text);
    }

    #[test]
    fn no_cut_makes_it_panic(cut in 0_usize..4000, with in "[\\[\\]{}:,&*!'\"\n ]{0,3}") {
        let mut text = std::fs::read_to_string("tests/manifest/good/full.yaml").unwrap();
        let at = (0..=cut.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap();
        text.insert_str(at, &with);
        survives(&text);
        survives(&text[..at]);
    }
}
