//! XML documents: a writer for answers, and a reader of small trees for requests.
//!
//! Invariants: the writer escapes all text; what XML 1.0 cannot hold goes out as a numeric reference, which is what Amazon's
//! service does and why clients ask for `encoding-type=url`. The reader takes no document types and no entities but the five
//! of XML itself, and is bounded in bytes (by its caller), depth and elements: it cannot be made to grow.

use quick_xml::events::Event;

/// Namespace of every document but errors.
pub(crate) const NAMESPACE: &str = "http://s3.amazonaws.com/doc/2006-03-01/";
/// Elements within elements of a request's document.
const DEPTH_MAX: usize = 8;
/// Elements of a request's document: 10 000 parts of 8 elements each, or 1 000 keys.
const ELEMENTS_MAX: usize = 100_000;

/// Writes a document without spaces between elements.
#[derive(Debug)]
pub(crate) struct Writer(String);

impl Writer {
    /// Begins with the declaration.
    pub(crate) fn document() -> Self {
        let mut text = String::with_capacity(512);
        text.push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        Self(text)
    }

    /// Without the declaration.
    pub(crate) fn empty() -> Self {
        Self(String::new())
    }

    /// A document in [`NAMESPACE`] with this root, which [`Writer::end`] closes.
    pub(crate) fn root(name: &str) -> Self {
        let mut xml = Self::document();
        for part in ["<", name, " xmlns=\"", NAMESPACE, "\">"] {
            xml.0.push_str(part);
        }
        xml
    }

    /// As [`Writer::root`], without the declaration: what goes on behind one.
    pub(crate) fn fragment_root(name: &str) -> Self {
        let mut text = Self::root(name).0;
        let at = text.find('\n').map_or(0, |at| at + 1);
        Self(text.split_off(at))
    }

    /// Opens an element; `name` is ours.
    pub(crate) fn open(&mut self, name: &str) {
        self.0.push('<');
        self.0.push_str(name);
        self.0.push('>');
    }

    pub(crate) fn close(&mut self, name: &str) {
        self.0.push_str("</");
        self.0.push_str(name);
        self.0.push('>');
    }

    /// An element that holds text.
    pub(crate) fn text(&mut self, name: &str, text: impl AsRef<str>) {
        self.open(name);
        escape(text.as_ref(), &mut self.0);
        self.close(name);
    }

    /// An element that holds a number or another word of ours.
    pub(crate) fn display(&mut self, name: &str, value: impl std::fmt::Display) {
        use std::fmt::Write as _;
        self.open(name);
        // Writing to a String cannot fail.
        let _ = write!(self.0, "{value}");
        self.close(name);
    }

    /// [`Writer::text`] where there is something.
    pub(crate) fn optional(&mut self, name: &str, text: Option<impl AsRef<str>>) {
        if let Some(text) = text {
            self.text(name, text);
        }
    }

    /// Text as it is: numbers, and what is escaped already.
    pub(crate) fn raw(&mut self, text: &str) {
        self.0.push_str(text);
    }

    pub(crate) fn finish(self) -> String {
        self.0
    }

    /// Closes the root that [`Writer::root`] opened.
    pub(crate) fn end(mut self, name: &str) -> String {
        self.close(name);
        self.0
    }
}

fn escape(text: &str, out: &mut String) {
    for char in text.chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\t' | '\n' => out.push(char),
            '\0'..='\x1f' | '\u{fffe}' | '\u{ffff}' => {
                use std::fmt::Write as _;
                let _ = write!(out, "&#x{:x};", char as u32);
            }
            _ => out.push(char),
        }
    }
}

/// An element of a request's document. Attributes and namespaces are not kept.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) name: String,
    /// All text directly in it.
    pub(crate) text: String,
    pub(crate) children: Vec<Element>,
}

/// Why a document was not taken: one answer for all, `MalformedXML`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

impl Element {
    /// The root of a document.
    pub(crate) fn parse(document: &[u8]) -> Result<Self, Malformed> {
        let text = std::str::from_utf8(document).map_err(|_| Malformed)?;
        let mut reader = quick_xml::Reader::from_str(text);
        reader.config_mut().expand_empty_elements = true;
        let mut open: Vec<Self> = Vec::new();
        let mut root: Option<Self> = None;
        let mut elements = 0;
        loop {
            match reader.read_event().map_err(|_| Malformed)? {
                Event::Start(start) => {
                    elements += 1;
                    if root.is_some() || open.len() == DEPTH_MAX || elements > ELEMENTS_MAX {
                        return Err(Malformed);
                    }
                    let name = start.local_name();
                    let name = std::str::from_utf8(name.as_ref()).map_err(|_| Malformed)?.to_owned();
                    open.push(Self {
                        name,
                        ..Self::default()
                    });
                }
                Event::End(_) => {
                    let done = open.pop().ok_or(Malformed)?;
                    match open.last_mut() {
                        Some(parent) => parent.children.push(done),
                        None => root = Some(done),
                    }
                }
                Event::Text(piece) => {
                    let piece = piece.decode().map_err(|_| Malformed)?;
                    match open.last_mut() {
                        Some(element) => element.text.push_str(&piece),
                        None if piece.trim().is_empty() => {}
                        None => return Err(Malformed),
                    }
                }
                Event::CData(piece) => {
                    let piece = piece.decode().map_err(|_| Malformed)?;
                    open.last_mut().ok_or(Malformed)?.text.push_str(&piece);
                }
                Event::GeneralRef(reference) => {
                    let element = open.last_mut().ok_or(Malformed)?;
                    if let Some(char) = reference.resolve_char_ref().map_err(|_| Malformed)? {
                        element.text.push(char);
                        continue;
                    }
                    let name = reference.decode().map_err(|_| Malformed)?;
                    element.text.push(match name.as_ref() {
                        "amp" => '&',
                        "lt" => '<',
                        "gt" => '>',
                        "quot" => '"',
                        "apos" => '\'',
                        _ => return Err(Malformed),
                    });
                }
                Event::Decl(_) | Event::Comment(_) | Event::PI(_) => {}
                Event::DocType(_) | Event::Empty(_) => return Err(Malformed),
                Event::Eof => break,
            }
        }
        if !open.is_empty() {
            return Err(Malformed);
        }
        root.ok_or(Malformed)
    }

    /// The root, which must have this name.
    pub(crate) fn parse_root(document: &[u8], name: &str) -> Result<Self, Malformed> {
        Some(Self::parse(document)?)
            .filter(|root| root.name == name)
            .ok_or(Malformed)
    }

    /// All children of a name.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Self> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// The one child of a name; two of it are malformed.
    pub(crate) fn child(&self, name: &str) -> Result<Option<&Self>, Malformed> {
        let mut all = self.children.iter().filter(|child| child.name == name);
        match (all.next(), all.next()) {
            (child, None) => Ok(child),
            _ => Err(Malformed),
        }
    }

    /// Text of the one child of a name, as it is.
    pub(crate) fn text_of(&self, name: &str) -> Result<Option<&str>, Malformed> {
        Ok(self.child(name)?.map(|child| child.text.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_and_what_xml_cannot_hold_is_a_reference() {
        let mut xml = Writer::root("R");
        xml.text("K", "a<b>&\"c\" \u{1}\r\né");
        xml.display("N", 7);
        xml.optional("O", None::<&str>);
        assert_eq!(
            xml.end("R"),
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<R xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
             <K>a&lt;b&gt;&amp;&quot;c&quot; &#x1;&#xd;\né</K><N>7</N></R>"
        );
    }

    #[test]
    fn a_document_is_read_with_references_namespaces_and_empty_elements() {
        let root = Element::parse_root(
            b"<?xml version='1.0'?>\n<!-- c --><s:Delete xmlns:s='x'><Quiet/> <Object><Key>a&amp;b&#x41;<![CDATA[<c>]]></Key></Object>\
              <Object><Key> k </Key></Object></s:Delete>\n",
            "Delete",
        )
        .unwrap();
        let keys: Vec<_> = root
            .all("Object")
            .map(|object| object.text_of("Key").unwrap().unwrap())
            .collect();
        assert_eq!(keys, ["a&bA<c>", " k "]);
        assert_eq!(root.text_of("Quiet"), Ok(Some("")));
        assert_eq!(root.child("Object"), Err(Malformed));
    }

    #[test]
    fn what_is_not_well_formed_too_deep_or_clever_is_refused() {
        let deep = format!("{}{}", "<a>".repeat(20), "</a>".repeat(20));
        for document in [
            "",
            "text",
            "<a>",
            "<a></b>",
            "<a/><b/>",
            "<a/>text",
            "<!DOCTYPE a [<!ENTITY x 'y'>]><a>&x;</a>",
            "<a>&x;</a>",
            "<a>&#0;</a>",
            &deep,
        ] {
            assert_eq!(Element::parse(document.as_bytes()), Err(Malformed), "{document}");
        }
        assert_eq!(Element::parse(b"<a>\xff</a>"), Err(Malformed));
        assert_eq!(Element::parse_root(b"<b/>", "a"), Err(Malformed));
    }

    #[test]
    fn what_the_writer_wrote_the_reader_reads() {
        let text = "a\u{1}\t\n\r<>&'\"\u{10ffff}";
        let mut xml = Writer::document();
        xml.text("K", text.trim_start_matches('\u{1}').replace('\u{1}', ""));
        let document = xml.finish();
        assert_eq!(
            Element::parse(document.as_bytes()).unwrap().text,
            text.replace('\u{1}', "")
        );
    }
}
