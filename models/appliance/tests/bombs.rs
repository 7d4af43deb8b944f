//! Inputs made to cost: each gets a clear error, or is read within a small multiple of its length, on a small stack.

use drylab_appliance::{Error, Limits, libvirt, ovf};

const HEAD: &str = "<e:Envelope xmlns:e='http://schemas.dmtf.org/ovf/envelope/1'>";

/// Peak memory of this process in KiB, where the system tells.
fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

/// Reads as OVF and as libvirt on a stack of 256 KiB; returns OVF's answer.
fn read(text: String) -> Result<ovf::Envelope, Error> {
    let small = std::thread::Builder::new().stack_size(256 << 10);
    let reader = small.spawn(move || {
        let _ = libvirt::parse(text.as_bytes(), &Limits::DEFAULT);
        ovf::parse(text.as_bytes(), &Limits::DEFAULT)
    });
    let found = reader
        .expect("a thread starts")
        .join()
        .expect("the reader does not panic");
    if let Some(kib) = peak() {
        assert!(kib < 512 << 10, "peak memory is {kib} KiB");
    }
    found
}

fn refused(text: String, says: &str) {
    let wrong = read(text).expect_err(says);
    assert!(
        matches!(wrong, Error::Unsupported(_)) && wrong.to_string().contains(says),
        "{wrong}"
    );
    assert!(wrong.to_string().len() < 500, "{wrong}");
}

#[test]
fn entities_and_document_types_are_refused_with_their_line() {
    let laughs: String = (1..10)
        .map(|n| format!("<!ENTITY l{n} \"&l{};&l{};\">", n - 1, n - 1))
        .collect();
    refused(
        format!(
            "<?xml version='1.0'?>\n<!DOCTYPE e [<!ENTITY l0 \"lol\">{laughs}]>\n{HEAD}&l9;</e:Envelope>"
        ),
        "line 2: a document type",
    );
    refused(
        format!("<!DOCTYPE e SYSTEM 'file:///etc/passwd'>{HEAD}</e:Envelope>"),
        "document type",
    );
}

#[test]
fn a_million_levels_are_refused_without_a_stack_overflow() {
    let (open, close) = ("<a>".repeat(80_000), "</a>".repeat(80_000));
    refused(
        format!("{HEAD}\n{open}{close}</e:Envelope>"),
        "line 2: more than 128 levels",
    );
    refused(
        format!("{HEAD}{}", "<a>".repeat(1_000_000)),
        "more than 262144 tags",
    );
    let nested =
        "<e:VirtualSystemCollection>".repeat(100) + &"</e:VirtualSystemCollection>".repeat(100);
    refused(
        format!("{HEAD}{nested}</e:Envelope>"),
        "more than 16 collections",
    );
}

#[test]
fn floods_of_elements_attributes_and_namespaces_are_refused_with_the_bound() {
    refused(
        format!("{HEAD}{}</e:Envelope>", "<a/>".repeat(1_000_000)),
        "262144",
    );
    refused(
        format!("{HEAD}{}</e:Envelope>", "x<a/>".repeat(200_000)),
        "262144 nodes",
    );
    let attributes: String = (0..100_000).map(|n| format!(" a{n}='1'")).collect();
    refused(
        format!("{HEAD}<a{attributes}/></e:Envelope>"),
        "256 attributes",
    );
    let namespaces: String = (0..50_000)
        .map(|n| format!("<a xmlns:n{n}='u{n}'/>"))
        .collect();
    refused(
        format!("{HEAD}{namespaces}</e:Envelope>"),
        "4096 namespace declarations",
    );
    refused(
        format!("{HEAD}<a b='{}'/></e:Envelope>", "=".repeat(2_000_000)),
        "1048576 equals signs",
    );
    refused(
        format!("{HEAD}{}</e:Envelope>", " ".repeat(17 << 20)),
        "larger than the 16777216 allowed",
    );
}

#[test]
fn huge_values_are_read_and_quoted_only_in_part() {
    let huge = "y".repeat(7 << 20);
    let text = format!(
        "{HEAD}<e:References><e:File e:id='{huge}' e:href='../{huge}'/></e:References></e:Envelope>"
    );
    let envelope = read(text).unwrap();
    assert_eq!(envelope.references[0].id.len(), 7 << 20);
    assert!(
        envelope
            .findings
            .iter()
            .all(|finding| finding.message.len() < 1000)
    );
    let wrong = read(format!("{HEAD}</{huge}>")).unwrap_err();
    assert!(wrong.to_string().len() < 500, "{wrong}");
    let wrong = read(format!("<{huge}/>")).unwrap_err();
    assert!(wrong.to_string().len() < 500, "{wrong}");
}

#[test]
fn as_many_cheap_pieces_as_the_bounds_allow_are_read_in_linear_time() {
    // Each would take minutes if anything were quadratic.
    let pieces = [
        "<![CDATA[a]]>".repeat(250_000),
        "&#65;".repeat(2_000_000),
        "<!---->".repeat(250_000),
        format!(
            "<e:References>{}</e:References>",
            "<e:File/>".repeat(250_000)
        ),
        format!(
            "<e:DiskSection>{}</e:DiskSection>",
            "<e:Disk e:diskId='d' e:fileRef='x' e:parentRef='y'/>".repeat(200_000)
        ),
    ];
    for piece in pieces {
        let head: String = piece.chars().take(20).collect();
        let envelope = read(format!("{HEAD}{piece}</e:Envelope>"))
            .unwrap_or_else(|wrong| panic!("{head}: {wrong}"));
        assert!(envelope.findings.len() <= 1001, "{head}");
    }
    let depth = "<a b='1' c='2'>".repeat(100) + &"</a>".repeat(100);
    assert!(read(format!("{HEAD}{}</e:Envelope>", depth.repeat(1000))).is_ok());
}
